"""The rules in Python: what needs BTF, names or maps: kernel objects, kptrs, kernel functions, global functions, callbacks.

`check` is the main loop: it lets the core run and does what the core leaves to it; `env` is the environment of one run.
"""
