"""Floor 2: reads Ansible inventories (YAML, INI, programs that print JSON) and the variable files next to them."""
