"""The same server as a compose file and as a Kubernetes deployment, written as text that any YAML reader takes.

Scalars are JSON strings, which YAML reads as they stand.
"""

from __future__ import annotations

import json

from planner.frozen import dataclass
from planner.units import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A server in a container: image, arguments after its entry point, port, GPUs, host memory, environment."""

    name: str
    image: str
    arguments: tuple[str, ...]
    port: int
    n_gpus: int
    host_bytes: int
    command: tuple[str, ...] = ()  # in place of the image's entry point
    environment: tuple[tuple[str, str], ...] = ()
    cache_path: str = "/root/.cache/huggingface"
    cache_name: str = "models"


def compose_file(container: Container) -> str:
    """Return a compose file with the GPUs reserved, in the order that the plan numbers them."""
    devices = ", ".join(json.dumps(str(index)) for index in range(container.n_gpus))
    lines = ["services:", f"  {container.name}:", f"    image: {json.dumps(container.image)}"]
    if container.command:
        lines.append(f"    entrypoint: {json.dumps(list(container.command))}")
    if container.arguments:
        lines.append(f"    command: {json.dumps(list(container.arguments))}")
    if container.environment:
        lines += ["    environment:", *(f"      {key}: {json.dumps(value)}" for key, value in container.environment)]
    lines += [
        f'    ports: ["{container.port}:{container.port}"]',
        f'    volumes: ["{container.cache_name}:{container.cache_path}"]',
        "    ipc: host",
    ]
    if container.n_gpus:
        reserved = f"{{driver: nvidia, device_ids: [{devices}], capabilities: [gpu]}}"
        lines += ["    deploy:", "      resources:", "        reservations:", f"          devices: [{reserved}]"]
    return "\n".join([*lines, "volumes:", f"  {container.cache_name}: {{}}", ""])


def kubernetes_deployment(container: Container) -> str:
    """Return a deployment that asks for the GPUs and the host memory of the plan."""
    gib = -(-container.host_bytes // GIB)
    limits = f'memory: "{gib}Gi"' + (f', nvidia.com/gpu: "{container.n_gpus}"' if container.n_gpus else "")
    lines = [
        "apiVersion: apps/v1",
        "kind: Deployment",
        f"metadata: {{name: {container.name}}}",
        "spec:",
        "  replicas: 1",
        f"  selector: {{matchLabels: {{app: {container.name}}}}}",
        "  template:",
        f"    metadata: {{labels: {{app: {container.name}}}}}",
        "    spec:",
        "      containers:",
        f"      - name: {container.name}",
        f"        image: {json.dumps(container.image)}",
    ]
    if container.command:
        lines.append(f"        command: {json.dumps(list(container.command))}")
    if container.arguments:
        lines.append(f"        args: {json.dumps(list(container.arguments))}")
    if container.environment:
        pairs = ", ".join(f"{{name: {key}, value: {json.dumps(value)}}}" for key, value in container.environment)
        lines.append(f"        env: [{pairs}]")
    lines += [
        f"        ports: [{{containerPort: {container.port}}}]",
        f"        resources: {{requests: {{{limits}}}, limits: {{{limits}}}}}",
        "        volumeMounts:",
        f"        - {{name: {container.cache_name}, mountPath: {json.dumps(container.cache_path)}}}",
        "        - {name: shm, mountPath: /dev/shm}",
        "      volumes:",
        f"      - {{name: {container.cache_name}, emptyDir: {{}}}}",
        "      - {name: shm, emptyDir: {medium: Memory}}",
        "",
    ]
    return "\n".join(lines)
