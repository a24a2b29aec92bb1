"""Reads the JSON of `amd-smi` and `rocm-smi`, in several versions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dstack.model.runner.metrics import GpuUse
from dstack.model.runner.runner import Gpu
from dstack.model.text.untrusted import NAME, clean_line, whole

_MOST = 10**15
"""The largest number that is believed."""
_TRIES = 100
"""How many brackets that begin no JSON document are looked at."""
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
    return next((cards for document in _documents(text) if (cards := list(_listed(document)))), [])


def _documents(text: str) -> Iterator[Any]:
    at = tries = 0
    while tries < _TRIES and (found := re.compile(r"[\[{]").search(text, at)):
        try:
            document, at = json.JSONDecoder().raw_decode(text, found.start())
        except (ValueError, RecursionError):
            tries, at = tries + 1, found.end()
        else:
            yield document


def _listed(answer: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if isinstance(answer, dict) and isinstance(answer.get("gpu_data"), list):
        answer = answer["gpu_data"]
    if isinstance(answer, list):
        cards = [card for card in answer if isinstance(card, dict) and type(card.get("gpu")) is int]
        yield from ((card["gpu"], card) for card in cards if 0 <= card["gpu"] <= _MOST)
    elif isinstance(answer, dict):
        # rocm-smi prints the driver's version once, next to the cards.
        system = _section(answer, "system")
        for name, card in answer.items():
            if re.fullmatch("card[0-9]{1,9}", name) and isinstance(card, dict):
                yield int(name[4:]), {key.lower(): value for key, value in (system | card).items()}


def _gpu(index: int, card: Mapping[str, Any], nodes: Mapping[str, str]) -> Gpu:
    asic = _section(card, "asic")
    names = (asic.get("market_name"), card.get("card series"), card.get("device name"))
    name = next((_text(each) for each in names if each and _named(_text(each))), "AMD GPU")
    uuid = _text(asic.get("asic_serial") or card.get("unique id") or "")
    memory = _bytes(_section(card, "vram").get("size")) or _whole(card.get("vram total memory (b)")) or 0
    driver = _text(_section(card, "driver").get("version") or card.get("driver version") or "")
    at = _section(card, "bus").get("bdf") or card.get("pci bus") or ""
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


def _text(value: Any) -> str:
    return clean_line(str(value), NAME) if isinstance(value, (str, int, float)) else ""


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
    return None if size is None else min(size * _UNITS.get(str(unit), 2**20), _MOST)


def _whole(value: Any) -> int | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value) if 0 <= value <= _MOST else None
    return whole(value) if isinstance(value, str) and value.isdecimal() else None
