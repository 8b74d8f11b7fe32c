"""What to paste: a Python program that loads the model as planned and answers one prompt."""

from __future__ import annotations

from planner.engines.engine import Emitted
from planner.engines.transformers.settings import TransformersSettings
from planner.frozen import dataclass
from planner.model import Model
from planner.units import MIB
from planner.workload import Workload

FILE = "generate.py"
_TORCH_DTYPE = {"fp32": "torch.float32", "fp16": "torch.float16", "bf16": "torch.bfloat16"}
_QUANTIZATION = {
    "int8": "BitsAndBytesConfig(load_in_8bit=True)",
    "nf4": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype={dtype})',
    "nf4_double": (
        'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, '
        "bnb_4bit_compute_dtype={dtype})"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModellingCode:
    """What loading has to know of a model's code.

    ``remote``: it comes with the checkpoint. ``eager_parts``: configurations of its parts that refuse any attention but
    eager.
    """

    remote: bool = False
    eager_parts: tuple[str, ...] = ()


def emit(
    model: Model,
    workload: Workload,
    settings: TransformersSettings,
    limits: dict[str, int] | None = None,
    code: ModellingCode | None = None,
) -> Emitted:
    """Return the program for exactly these settings; it takes image files as its arguments.

    Args:
        model: its Hub id or folder goes into the text.
        workload: images, batch and lengths asked for.
        settings: how the model is loaded and called.
        limits: bytes each device may take, by ``CUDA0`` ... and ``Host``; stands in where the user gave none.
        code: what loading has to know of the model's code.
    """
    code = code or ModellingCode()
    files = "".join(f" image{i}.jpg" for i in range(len(workload.images)))
    command = f"pip install transformers accelerate pillow{_extra_packages(settings)} && python {FILE}{files}"
    vision = bool(workload.images)
    body = _vision_body(workload, settings) if vision else _text_body(workload, settings)
    parts = (
        _imports(settings, vision=vision),
        _loading(model, settings, limits, code, vision=vision),
        body,
    )
    return Emitted(command=command, config=f"# {FILE}\n" + "\n".join(parts))


def _extra_packages(settings: TransformersSettings) -> str:
    found = " bitsandbytes" if settings.load_in else ""
    return found + (" flash-attn" if settings.attn_implementation == "flash_attention_2" else "")


def _imports(settings: TransformersSettings, *, vision: bool) -> str:
    names = ["AutoModelForImageTextToText", "AutoProcessor"] if vision else ["AutoModelForCausalLM", "AutoTokenizer"]
    if settings.load_in:
        names.append("BitsAndBytesConfig")
    lines = ["import sys", "", "import torch"] if vision else ["import torch"]
    if vision:
        lines.append("from PIL import Image")
    return "\n".join([*lines, f"from transformers import {', '.join(names)}", ""])


def _loading(
    model: Model,
    settings: TransformersSettings,
    limits: dict[str, int] | None,
    code: ModellingCode,
    *,
    vision: bool,
) -> str:
    dtype = _TORCH_DTYPE[settings.dtype]
    words = [
        f"dtype={dtype}",
        f"attn_implementation={_attention(settings, code.eager_parts)}",
        f"device_map={_device_map(settings)}",
    ]
    max_memory = _max_memory(settings, limits)
    if max_memory:
        words.append(f"max_memory={max_memory!r}")
    if settings.load_in:
        words.append(f"quantization_config={_QUANTIZATION[settings.load_in].format(dtype=dtype)}")
    if code.remote:
        words.append("trust_remote_code=True")
    reader = "AutoProcessor" if vision else "AutoTokenizer"
    options = [f"{key}={value!r}" for key, value in settings.processor.items()] if vision else []
    options += ["trust_remote_code=True"] if code.remote else []
    name = "AutoModelForImageTextToText" if vision else "AutoModelForCausalLM"
    side = "" if vision else ', padding_side="left"'
    return "\n".join(
        (
            f"MODEL = {(model.hf_id or model.name)!r}",
            f"reader = {reader}.from_pretrained({', '.join(['MODEL' + side, *options])})",
            f"model = {name}.from_pretrained(",
            "    MODEL,",
            *(f"    {word}," for word in words),
            ").eval()",
            "",
        )
    )


def _attention(settings: TransformersSettings, eager_parts: tuple[str, ...]) -> str:
    """Return the word, or one word for each part where a part has eager attention only and would refuse another."""
    chosen = settings.attn_implementation
    if not eager_parts or chosen == "eager":
        return f'"{chosen}"'
    words = [f'"": "{chosen}"', *(f'"{part}": "eager"' for part in eager_parts)]
    return f"{{{', '.join(words)}}}"


def _device_map(settings: TransformersSettings) -> str:
    match settings.device_map:
        case "auto":
            return '"auto"'
        case "single":
            return '{"": 0}'
        case "cpu":
            return '{"": "cpu"}'


def _max_memory(settings: TransformersSettings, limits: dict[str, int] | None) -> dict[int | str, str]:
    if settings.max_memory is not None:
        return {key if key == "cpu" else int(key): size for key, size in settings.max_memory.items()}
    if settings.device_map != "auto" or limits is None:
        return {}
    return {"cpu" if name == "Host" else int(name[4:]): f"{size // MIB}MiB" for name, size in limits.items()}


def _vision_body(workload: Workload, settings: TransformersSettings) -> str:
    return "\n".join(
        (
            'images = [Image.open(path).convert("RGB") for path in sys.argv[1:]]',
            'content = [{"type": "image", "image": image} for image in images]',
            'content.append({"type": "text", "text": "What do these pictures show?"})',
            f'messages = [[{{"role": "user", "content": content}}]] * {workload.batch}',
            "inputs = reader.apply_chat_template(",
            "    messages, add_generation_prompt=True, tokenize=True, return_dict=True,",
            '    return_tensors="pt", padding=True,',
            f").to(model.device, {_TORCH_DTYPE[settings.dtype]})",
            *_answer(workload, settings, "reader"),
        )
    )


def _text_body(workload: Workload, settings: TransformersSettings) -> str:
    return "\n".join(
        (
            f'prompts = ["What is a GPU?"] * {workload.batch}',
            'inputs = reader(prompts, return_tensors="pt").to(model.device)',
            *_answer(workload, settings, "reader"),
        )
    )


def _answer(workload: Workload, settings: TransformersSettings, reader: str) -> tuple[str, ...]:
    if settings.logits == "all":
        return ("with torch.inference_mode():", "    logits = model(**inputs).logits", "print(logits.shape)", "")
    return (
        "with torch.inference_mode():",
        f"    output = model.generate(**inputs, max_new_tokens={max(1, workload.answer_tokens)}, do_sample=False)",
        f'print({reader}.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        "",
    )
