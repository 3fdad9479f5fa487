/* Everything that can be set between open and load (test_kernel_setup.py). */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

enum mode { IDLE, BUSY = 5 };

struct filter {
	u32 pid;
	char comm[16];
	union {
		u64 flags;
		u32 halves[2];
	};
	u8 low : 3, high : 5;
	struct { s16 x, y; } points[2];
};

const volatile u32 targ_pid = 0;
const volatile bool per_thread = false;
const volatile struct filter filter = {};
const volatile enum mode mode = IDLE;
const volatile s8 small = -1;
const volatile char letter = 'a';
const volatile unsigned long long limits[4] = { 1, 2 };
int start_at = 3;
u64 hits, last[4];
double unused_ratio;
int resized[1] SEC(".data.extra");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 0);
	__type(key, u32);
	__type(value, u64);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, u32);
	__type(value, u64);
} optional SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, u32);
	__array(values, struct inner);
} outer SEC(".maps");

struct {
	__uint(type, 99);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} unknown_type SEC(".maps");

static int count(u32 key)
{
	u64 one = 1, *value = bpf_map_lookup_elem(&start, &key);

	if (targ_pid && key != targ_pid)
		return 0;
	if (value)
		++*value;
	else
		bpf_map_update_elem(&start, &key, &one, BPF_ANY);
	last[hits & 3] = key;
	return ++hits;
}

SEC("raw_tp/sys_enter") int on_enter(u64 *ctx) { return count(ctx[1]); }
SEC("raw_tp") int anywhere(u64 *ctx) { return start_at; }
SEC("?raw_tp/sys_exit") int on_exit(u64 *ctx) { return mode == BUSY ? filter.points[1].y : 0; }

SEC("?raw_tp/sys_exit") int guarded(u64 *ctx)
{
	u32 key = 1;

	return per_thread ? bpf_map_lookup_elem(&optional, &key) != 0 : 7;
}

SEC("?raw_tp/sys_exit") int nested(u64 *ctx)
{
	u32 key = 0;
	void *inner = bpf_map_lookup_elem(&outer, &key);

	return inner ? bpf_map_lookup_elem(inner, &key) != 0 : 9;
}

SEC("?raw_tp/sys_exit") int of_unknown(u64 *ctx)
{
	u32 key = 0;

	return bpf_map_lookup_elem(&unknown_type, &key) != 0;
}

SEC("?raw_tp/sys_exit") int reads_extra(u64 *ctx) { return resized[0]; }
SEC("?raw_tp/sched_switch") int twin_raw(u64 *ctx) { ++hits; return 0; }
SEC("?tp_btf/sched_switch") int twin_btf(u64 *ctx) { ++hits; return 0; }
