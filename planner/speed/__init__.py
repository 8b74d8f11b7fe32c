"""How fast: a roofline per stage with its parts named, every figure a range with its basis.

Pure functions over plain inputs; the factors stand in ``profiles/engines/speed.yaml`` and are fitted on published
figures (``docs/speed.md``).
"""

from planner.speed.decode import DecodeWork, decode_time
from planner.speed.encode import TowerWork, attended_pairs, encode_time, weight_flops
from planner.speed.loading import image_decode_time, link_bytes_per_s, load_time
from planner.speed.plan import PlanSpeed, plan_speed
from planner.speed.prefill import PrefillWork, pipeline_speedup, prefill_flops, prefill_time
from planner.speed.stage import StageTime, in_sequence, stage
from planner.speed.table import Constants, Device, DeviceClass, EngineFactors, SpeedTable, gpu_device, host_device

__all__ = [
    "Constants",
    "DecodeWork",
    "Device",
    "DeviceClass",
    "EngineFactors",
    "PlanSpeed",
    "PrefillWork",
    "SpeedTable",
    "StageTime",
    "TowerWork",
    "attended_pairs",
    "decode_time",
    "encode_time",
    "gpu_device",
    "host_device",
    "image_decode_time",
    "in_sequence",
    "link_bytes_per_s",
    "load_time",
    "pipeline_speedup",
    "plan_speed",
    "prefill_flops",
    "prefill_time",
    "stage",
    "weight_flops",
]
