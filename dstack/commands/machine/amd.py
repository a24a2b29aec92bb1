"""Reads the JSON of `amd-smi` and `rocm-smi`, in several versions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from dstack.model.runner.metrics import GpuUse
from dstack.model.runner.runner import Gpu

_UNITS = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}


def gpus(text: str, nodes: Mapping[str, str] | None = None, first: int = 0) -> tuple[Gpu, ...]:
    """Return the GPUs in the output of `amd-smi static` or `rocm-smi --showproductname ...`. `nodes` maps PCI addresses
    to names below /dev/dri. Indexes start at `first`, after the machine's other GPUs."""
    return tuple(_gpu(first + index, card, nodes or {}) for index, card in _cards(text))


def uses(text: str, first: int = 0) -> tuple[GpuUse, ...]:
    """Return the GPUs' usage from the output of `amd-smi metric` or `rocm-smi --showuse ...`."""
    return tuple(_use(first + index, card) for index, card in _cards(text))


def behind(indexes: Iterable[int]) -> int:
    """Return the index after these. GPUs of two vendors in one machine get distinct indexes."""
    return max(indexes, default=-1) + 1


def _cards(text: str) -> list[tuple[int, Mapping[str, Any]]]:
    """Return index and facts of each card, from the first JSON document that has any. It may be surrounded by warnings,
    which contain brackets, too ("GPU[0]: ..."). amd-smi 25 and newer wrap the list."""
    for found in re.finditer(r"[\[{]", text):
        with suppress(ValueError):
            if cards := list(_listed(json.JSONDecoder().raw_decode(text, found.start())[0])):
                return cards
    return []


def _listed(answer: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if isinstance(answer, dict) and isinstance(answer.get("gpu_data"), list):
        answer = answer["gpu_data"]
    if isinstance(answer, list):
        yield from ((card["gpu"], card) for card in answer if isinstance(card, dict) and type(card.get("gpu")) is int)
    elif isinstance(answer, dict):
        # rocm-smi prints the driver's version once, next to the cards.
        system = _section(answer, "system")
        for name, card in answer.items():
            if name.startswith("card") and name[4:].isdecimal() and isinstance(card, dict):
                yield int(name[4:]), {key.lower(): value for key, value in (system | card).items()}


def _gpu(index: int, card: Mapping[str, Any], nodes: Mapping[str, str]) -> Gpu:
    asic = _section(card, "asic")
    names = (asic.get("market_name"), card.get("card series"), card.get("device name"))
    name = next((str(each) for each in names if each and _named(str(each))), "AMD GPU")
    uuid = str(asic.get("asic_serial") or card.get("unique id") or "")
    memory = _bytes(_section(card, "vram").get("size")) or _whole(card.get("vram total memory (b)")) or 0
    driver = str(_section(card, "driver").get("version") or card.get("driver version") or "")
    at = (card.get("bus") or {}).get("bdf") or card.get("pci bus") or ""
    node = nodes.get(str(at).lower(), "")
    return Gpu(index, name, memory, _known(uuid), _version(driver), vendor="amd", node=node)


def _use(index: int, card: Mapping[str, Any]) -> GpuUse:
    usage, memory = _section(card, "usage"), _section(card, "mem_usage")
    percent = _whole(_value(usage.get("gfx_activity"))) if usage else _whole(card.get("gpu use (%)"))
    used = _bytes(memory.get("used_vram")) or _whole(card.get("vram total used memory (b)")) or 0
    return GpuUse(index=index, percent=percent, memory_used=used)


def _section(card: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section of a card's facts; amd-smi writes "N/A" for one that the card lacks."""
    found = card.get(name)
    return found if isinstance(found, dict) else {}


def _known(text: str) -> str:
    return "" if text == "N/A" else text


def _named(text: str) -> bool:
    """Whether this is a name: rocm-smi prints a PCI id if it knows none."""
    return bool(_known(text)) and not re.fullmatch("0x[0-9a-f]+", text)


def _version(driver: str) -> str:
    """Return the driver's version. The kernel's own driver reports the kernel's banner, without spaces."""
    banner = re.match(r"Linuxversion([^(]+)", driver)
    return f"Linux {banner[1]}" if banner else _known(driver)


def _value(field: Any) -> Any:
    """Return the value of `{"value": 12, "unit": "%"}`, or a bare value."""
    return field.get("value") if isinstance(field, dict) else field


def _bytes(field: Any) -> int | None:
    """Return a size in bytes; a bare number is in MB."""
    size = _whole(_value(field))
    unit = field.get("unit", "MB") if isinstance(field, dict) else "MB"
    return None if size is None else size * _UNITS.get(unit, 2**20)


def _whole(value: Any) -> int | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value)
    return int(value) if isinstance(value, str) and value.isdecimal() else None
