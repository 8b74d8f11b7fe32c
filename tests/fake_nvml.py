# ruff: noqa: D102, D107, N802 - the functions are NVML's own
"""Recorded fakes of NVML: the functions that detection calls, answering as drivers were seen to answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

MIB = 1 << 20


class NvmlError(Exception):
    """NVML's error, with its code."""

    def __init__(self, value: int, text: str) -> None:
        super().__init__(text)
        self.value = value


NOT_SUPPORTED = NvmlError(3, "Not Supported")
NO_PERMISSION = NvmlError(4, "Insufficient Permissions")
DRIVER_NOT_LOADED = NvmlError(9, "Driver Not Loaded")
MISMATCH = NvmlError(18, "Driver/library version mismatch")


def gpu(name: str, total_mib: float = 24576, free_mib: float = 24000, **facts: Any) -> dict[str, Any]:
    """Return one device's record; ``reserved_mib`` None is a driver without the second memory structure."""
    record = {"name": name, "total_mib": total_mib, "free_mib": free_mib, "reserved_mib": 0, "uuid": None, "mig": None}
    return record | facts


class FakeNvml:
    """A module-like NVML over records. An exception as a value is raised when the value is asked for."""

    NVMLError = NvmlError
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_CLOCK_MEM = 2
    NVML_CLOCK_SM = 1
    nvmlMemory_v2 = 33554472  # noqa: N815 - NVML's own name

    def __init__(self, *gpus: dict[str, Any] | Exception, init: Exception | None = None) -> None:
        self.gpus = gpus
        self.init = init
        self.shut_down = False

    def _value(self, handle: dict[str, Any], key: str) -> Any:
        value = handle.get(key, NOT_SUPPORTED)
        if isinstance(value, Exception):
            raise value
        return value

    def nvmlInit(self) -> None:
        if self.init is not None:
            raise self.init

    def nvmlShutdown(self) -> None:
        self.shut_down = True

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.95.05"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        found = self.gpus[index]
        if isinstance(found, Exception):
            raise found
        return found

    def nvmlDeviceGetName(self, handle: dict[str, Any]) -> Any:
        return self._value(handle, "name")

    def nvmlDeviceGetUUID(self, handle: dict[str, Any]) -> Any:
        return self._value(handle, "uuid")

    def nvmlDeviceGetMemoryInfo(self, handle: dict[str, Any], version: int | None = None) -> SimpleNamespace:
        total, free = self._value(handle, "total_mib") * MIB, self._value(handle, "free_mib") * MIB
        if version is None:
            return SimpleNamespace(total=total, free=free, used=total - free)
        if handle["reserved_mib"] is None:
            raise NOT_SUPPORTED
        return SimpleNamespace(total=total, free=free, reserved=handle["reserved_mib"] * MIB, used=0)

    def nvmlDeviceGetCudaComputeCapability(self, handle: dict[str, Any]) -> Any:
        return self._value(handle, "capability")

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: dict[str, Any]) -> Any:
        return self._value(handle, "generation")

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: dict[str, Any]) -> Any:
        return self._value(handle, "lanes")

    def nvmlDeviceGetMigMode(self, handle: dict[str, Any]) -> list[int]:
        mig = self._value(handle, "mig")
        if mig is None:
            raise NOT_SUPPORTED
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: dict[str, Any]) -> int:  # noqa: ARG002
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: dict[str, Any], slot: int) -> dict[str, Any]:
        if slot >= len(handle["mig"]):
            raise NvmlError(6, "Not Found")
        return handle["mig"][slot]

    def nvmlDeviceGetAttributes(self, handle: dict[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(multiprocessorCount=self._value(handle, "sms"))

    def nvmlDeviceGetMaxClockInfo(self, handle: dict[str, Any], kind: int) -> Any:
        return self._value(handle, "memory_mhz" if kind == self.NVML_CLOCK_MEM else "sm_mhz")

    def nvmlDeviceGetMemoryBusWidth(self, handle: dict[str, Any]) -> Any:
        return self._value(handle, "bus_bits")

    def nvmlDeviceGetNumGpuCores(self, handle: dict[str, Any]) -> Any:
        return self._value(handle, "cores")
