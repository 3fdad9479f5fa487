/* A map that the kernel refuses with its types, and takes without them (test_kernel_forgives.py). */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

enum place { FIRST, SECOND };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, enum place);
	__type(value, u64);
} places SEC(".maps");

SEC("raw_tp/sys_enter") int count(void *ctx)
{
	u32 key = SECOND;
	u64 *value = bpf_map_lookup_elem(&places, &key);

	if (value)
		++*value;
	return 0;
}
