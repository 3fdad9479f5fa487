"""Object files, opened, set up and loaded as libbpf does: maps, relocation, externs, programs, global variables.

libbpf counterpart: tools/lib/bpf/libbpf.c, and what bpftool's skeletons give.
"""
