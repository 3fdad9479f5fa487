/* Map definitions by BTF, with an initialised program array. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct task_key {
	__u32 pid;
	char comm[12];
};

struct value {
	__u64 count;
	enum pid_type type;
	__s32 flags : 3;
	__u32 rest : 29;
};

struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 100); __type(key, struct task_key); __type(value, struct value);
	 __uint(map_flags, BPF_F_NO_PREALLOC); } hash SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 10); __uint(key_size, 4); __uint(value_size, 12); } percpu SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } slots SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 10); __type(key, __u64); __type(value, __u8); __uint(pinning, 1); } lru SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 5000); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); } perf SEC(".maps");
int target(void *ctx);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 8); __uint(key_size, 4); __array(values, int(void *)); }
	jumps SEC(".maps") = {.values = {[5] = (void *)&target}};

SEC("raw_tp")
int target(void *ctx)
{
	return 1;
}

struct record {
	__u32 pid;
	__u64 time;
};

SEC("raw_tp/sched_switch")
int use_all(void *ctx)
{
	struct task_key key = {bpf_get_current_pid_tgid()};
	struct value *value = bpf_map_lookup_elem(&hash, &key);
	__u32 zero = 0;
	__u64 *slot = bpf_map_lookup_elem(&slots, &zero);
	struct record *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	if (record) {
		record->pid = key.pid;
		record->time = bpf_ktime_get_ns();
		bpf_ringbuf_submit(record, 0);
	}
	if (value)
		value->count++;
	if (slot)
		++*slot;
	bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &key, sizeof(key));
	bpf_tail_call(ctx, &jumps, 5);
	return 0;
}
