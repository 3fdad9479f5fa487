"""bpf(2): one module a group of commands, and `Call`, the call under way, which hands each what it needs.

`sys_bpf` finds the command and checks what the kernel checks before it. Kernel counterpart: kernel/bpf/syscall.c.
"""
