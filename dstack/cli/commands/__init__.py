"""The commands. Each file is imported only when its command is called."""
