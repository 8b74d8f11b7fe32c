"""transformers: PyTorch allocates as it goes; the peak is the largest moment of a prefill, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.budget import Budget
from planner.engines.engine import Emitted, Engine, Support
from planner.engines.support import SupportTable, loads
from planner.engines.transformers.budget import TransformersData, budget, device_limits
from planner.engines.transformers.budget import supported as possible
from planner.engines.transformers.forms import forms_of
from planner.engines.transformers.room import with_room
from planner.engines.transformers.settings import TransformersSettings
from planner.engines.transformers.snippet import ModellingCode, emit
from planner.machine import Machine
from planner.memory.overhead import OverheadTable
from planner.model import Model
from planner.workload import Workload

__all__ = ["TransformersSettings", "transformers_engine"]
VERSION = "5.23.0"


def transformers_engine(
    version: str | None, tables: Mapping[str, SupportTable], moments: Mapping[str, Any], overhead: OverheadTable
) -> Engine:
    """Return transformers at ``version`` (default: the one that was traced), with its data inside.

    ``moments`` is ``profiles/engines/transformers/moments.yaml``.
    """
    data = TransformersData(forms=forms_of(moments), overhead=overhead)

    def supported(model: Model) -> Support:
        return loads(
            tables,
            "transformers",
            family=model.family,
            architecture_class=model.architecture_class,
            gguf_architecture=model.language.architecture,
            version=version,
        )

    def planned(model: Model, workload: Workload, machine: Machine, settings: TransformersSettings) -> Budget:
        return budget(data, model, workload, machine, settings)

    def emitted(model: Model, workload: Workload, machine: Machine, settings: TransformersSettings) -> Emitted:
        form = data.forms.of_model(model)
        settings = possible(settings, form)
        limits = device_limits(data, model, machine, settings)
        remote = supported(model).verdict == "remote_code"
        return emit(model, workload, settings, limits, ModellingCode(remote=remote, eager_parts=form.eager_parts))

    def roomy(
        model: Model, workload: Workload, machine: Machine, settings: TransformersSettings
    ) -> TransformersSettings:
        return with_room(data, model, workload, machine, settings)

    return Engine(
        name="transformers",
        version=version or VERSION,
        settings=TransformersSettings,
        loads=supported,
        budget=planned,
        emit=emitted,
        adapt=roomy,
    )
