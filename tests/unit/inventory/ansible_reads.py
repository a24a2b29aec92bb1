"""Prints what Ansible reads from some inventories, as JSON by path: each host's groups and variables, or null if it
refuses the inventory. One process for all, because Ansible takes a second to start."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

QUIET = {
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true",
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
    "ANSIBLE_LOCALHOST_WARNING": "false",
    "LC_ALL": "C.UTF-8",
}


def listed(path: str) -> Any:
    from ansible.constants import INTERNAL_STATIC_VARS
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.vars.manager import VariableManager

    loader = DataLoader()
    try:
        inventory = InventoryManager(loader=loader, sources=[path])
        variables = VariableManager(loader=loader, inventory=inventory)
        return {
            name: {
                "groups": sorted({group.name for group in host.get_groups()} - {"all", "ungrouped"}),
                "variables": {
                    str(key): value
                    for key, value in variables.get_vars(host=host, include_hostvars=False, stage="all").items()
                    if key not in INTERNAL_STATIC_VARS
                },
            }
            for name, host in inventory.hosts.items()
        }
    except AnsibleError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    os.environ.update(QUIET)
    with contextlib.redirect_stdout(sys.stderr):
        found = {path: listed(path) for path in sys.argv[1:]}
    print(json.dumps(found, default=str))
