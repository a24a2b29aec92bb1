"""What people type who know another program, or who mistype: each answer names the next step.

After a change of wording: UPDATE_GOLDEN=1 pytest tests/unit/cli/commands/test_wrong_commands.py, and read the diff.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from dstack.cli.foreign_commands import ANSWERS
from dstack.cli.root import COMMANDS
from tests.unit.cli.conftest import Cli

GOLDEN = Path(__file__).parents[3] / "golden" / "wrong-commands.txt"
TYPED = """\
ps
ls -la
status
queue
top
apply -f train.yaml
submit train
launch train
sbatch train.sh
squeue -u ann
scancel 7
kill brave-otter-7
rm brave-otter-7
cancel brave-otter-7
describe brave-otter-7
ssh brave-otter-7
shell brave-otter-7
port-forward brave-otter-7 8888
tail -f brave-otter-7
cp brave-otter-7:out .
pull brave-otter-7
rerun brave-otter-7
nodes
add gpu1.example.org
login
workflows
doctor lab1
clean
version
help
help run
help runners add
help ps
help rnu
train
train --lr 0.1
rnu train
stat
runs brave-otter-9
runs --limit 3
logs
logs brave-otter-9
logs brave-otter-7 trian
stop
run
run trian
run train --lerning-rate 0.1
run train --gpu 2
run train -p http
run train -d -p 80
run train --priority high
run train --timeout soon
attach nothing
attach
exec
runners add
runners add 'a b'
runners chekc
artifacts get brave-otter-7
secrets add TOKEN
tag brave-otter-7 'no good'
config --url ftp://x
prune --older-than 30
usage --by colour
usage --since yesterday
why"""
FILES = {
    "a key that is misspelled": "workflows:\n  - {name: train, image: busybox, comands: [ls]}\n",
    "no image": "workflows:\n  - {name: train, commands: [ls]}\n",
    "a port that is none": "workflows:\n  - {name: train, image: busybox, commands: [ls], ports: [99999]}\n",
    "an unknown dependency": "workflows:\n  - {name: train, image: busybox, commands: [ls], depends-on: [prepere]}\n",
    "tabs": "workflows:\n\t- name: train\n",
    "a list that is none": "workflows:\n  name: train\n",
    "a GPU count in words": ("workflows:\n  - {name: train, image: busybox, commands: [ls], resources: {gpu: two}}\n"),
    "memory without a unit": (
        "workflows:\n  - {name: train, image: busybox, commands: [ls], resources: {memory: 16G B}}\n"
    ),
    "an undefined variable": "workflows:\n  - {name: train, image: '$imagge', commands: [ls]}\n",
    "nothing": "",
}


def answered(cli: Cli, folder: Path, *words: str, cwd: Path | None = None) -> str:
    done = cli(*words, **({"cwd": cwd} if cwd else {}))
    shown = (done.stdout + done.stderr).decode().replace(str(folder), "FOLDER")
    shown = re.sub(r"\[Errno \d+\] ", "", shown)
    return f"$ dstack {shlex.join(words)}\n{shown.rstrip()}\n[{done.returncode}]\n"


def test_every_answer_is_what_it_was(cli: Cli, project: Path, folder: Path) -> None:
    parts = [answered(cli, folder, *shlex.split(line)) for line in TYPED.splitlines()]
    parts.append(answered(cli, folder, "run", "train", cwd=folder))
    parts.append(answered(cli, folder, cwd=folder))
    for what, text in FILES.items():
        (project / ".dstack" / "workflows.yaml").write_text(text)
        parts.append(f"# {what}\n" + answered(cli, folder, "run", "train"))
    shown = "\n".join(parts)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(shown)

    assert shown == GOLDEN.read_text()
    for part in parts:
        assert (
            re.search(r"hint: |dstack init|Usage: |; write ", part) or "did you mean" in part or ".dstack/" in part
        ), part
        assert "Traceback" not in part


@pytest.mark.parametrize("word", sorted(ANSWERS))
def test_the_answer_is_a_command_that_exists(word: str) -> None:
    assert word not in COMMANDS
    _, command = ANSWERS[word]
    assert command == "dstack --version" or command.split()[1] in COMMANDS
