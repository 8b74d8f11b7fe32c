"""What is here and free: NVML, sysfs, sysctl, psutil and the cgroup limits become a ``Machine``.

Nothing in here raises for a missing, refusing or lying driver: what could not be seen stands in ``Machine.notes``.
"""

from planner.detect.machine import Surroundings, detect_host, detect_machine

__all__ = ["Surroundings", "detect_host", "detect_machine"]
