/* Subprograms: static, global, hidden, shared by programs, in other sections, as callbacks. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

struct sum {
	__u64 value;
};

static __noinline __u64 leaf(__u64 x)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&numbers, &key);

	return value ? *value + x : x;
}

static __noinline __u64 middle(__u64 x)
{
	return leaf(x) * 3 + leaf(x + 1);
}

__noinline int global_function(__u64 x)
{
	return middle(x) ^ bpf_get_prandom_u32();
}

__hidden __noinline int hidden_function(__u64 x)
{
	return x * bpf_get_prandom_u32();
}

static long add_index(__u32 index, struct sum *sum)
{
	sum->value += leaf(index);
	return 0;
}

static long add_value(void *map, __u32 *key, __u64 *value, struct sum *sum)
{
	sum->value += *value;
	return 0;
}

SEC("raw_tp/one")
int calls_static(__u64 *ctx)
{
	return middle(ctx[0]);
}

SEC("raw_tp/two")
int calls_global(__u64 *ctx)
{
	return global_function(ctx[0]) + hidden_function(ctx[1]) + middle(1);
}

SEC("raw_tp/three")
int loops(__u64 *ctx)
{
	struct sum sum = {};

	bpf_loop(10, add_index, &sum, 0);
	bpf_for_each_map_elem(&numbers, add_value, &sum, 0);
	return sum.value;
}

SEC("raw_tp/four")
__noinline int callee_program(struct bpf_raw_tracepoint_args *ctx)
{
	return bpf_get_prandom_u32() & 1;
}

SEC("raw_tp/five")
int calls_program(struct bpf_raw_tracepoint_args *ctx)
{
	return callee_program(ctx) + (int)leaf(2);
}
