/* Maps of maps with initialisers, and attributes that only __ulong can carry. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct { __uint(type, BPF_MAP_TYPE_BLOOM_FILTER); __uint(max_entries, 10); __type(value, __u32); __ulong(map_extra, 5); } bloom SEC(".maps");

struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3); __type(key, __u32); __type(value, __u64); };
struct inner inner_a SEC(".maps"), inner_b SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, __u32); __array(values, struct inner); }
	outer SEC(".maps") = {.values = {[0] = &inner_b, [3] = &inner_a}};

SEC("raw_tp/sched_switch")
int use_inner(void *ctx)
{
	__u32 zero = 0;
	void *map = bpf_map_lookup_elem(&outer, &zero);
	__u64 *value = map ? bpf_map_lookup_elem(map, &zero) : 0;

	if (value)
		++*value;
	return 0;
}
