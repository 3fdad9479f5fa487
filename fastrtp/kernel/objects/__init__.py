"""Programs, maps, links, BTF and perf events as the kernel keeps them, with their names in bpffs and in /proc.

Kernel counterpart: kernel/bpf (struct bpf_prog, bpf_map, bpf_link, btf), kernel/bpf/inode.c. Must not know: bpf(2)'s attributes.
"""
