/* What libbpf forgives: a parameter without a name, whose BTF the kernel refuses (test_kernel_forgives.py). */
// build: -Wno-c23-extensions -Wno-c2x-extensions
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

int hits;

SEC("raw_tp/sys_enter") int unnamed(void *) { return ++hits; }
