/* Run-queue latency: how long tasks wait for a CPU after they become runnable, as log2 histograms of microseconds per task. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define SLOTS 32
#define TASK_COMM_LEN 16
#define TASK_RUNNING 0

char LICENSE[] SEC("license") = "GPL";

/* false: one histogram for all tasks, under pid 0 */
const volatile bool per_task = true;

struct hist {
	__u64 count;
	__u64 total_us;
	__u32 slots[SLOTS]; /* slot s: latencies of [2^s, 2^(s+1)) us; slot 0 from 0 */
	char comm[TASK_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} enqueued SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct hist);
} runqlat SEC(".maps");

/* Before Linux 5.14 the member was called `state`. */
struct task_struct___before_5_14 {
	volatile long state;
} __attribute__((preserve_access_index));

static __always_inline long task_state(struct task_struct *task)
{
	struct task_struct___before_5_14 *old = (void *)task;

	if (bpf_core_field_exists(old->state))
		return BPF_CORE_READ(old, state);
	return BPF_CORE_READ(task, __state);
}

static __always_inline void enqueue(struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, pid);
	__u64 now = bpf_ktime_get_ns();

	if (pid)
		bpf_map_update_elem(&enqueued, &pid, &now, BPF_ANY);
}

static __always_inline __u32 log2_slot(__u64 value)
{
	__u32 slot = 0, shift;

	shift = (value > 0xffffffff) << 5; value >>= shift; slot |= shift;
	shift = (value > 0xffff) << 4; value >>= shift; slot |= shift;
	shift = (value > 0xff) << 3; value >>= shift; slot |= shift;
	shift = (value > 0xf) << 2; value >>= shift; slot |= shift;
	shift = (value > 0x3) << 1; value >>= shift; slot |= shift;
	slot |= value >> 1;
	return slot < SLOTS ? slot : SLOTS - 1;
}

SEC("raw_tp/sched_wakeup")
int on_wakeup(__u64 *ctx)
{
	enqueue((struct task_struct *)ctx[0]);
	return 0;
}

SEC("raw_tp/sched_wakeup_new")
int on_wakeup_new(__u64 *ctx)
{
	enqueue((struct task_struct *)ctx[0]);
	return 0;
}

SEC("raw_tp/sched_switch")
int on_switch(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	__u32 pid = BPF_CORE_READ(next, pid), key = per_task ? pid : 0, slot;
	struct hist *hist;
	__u64 *since, us;

	if (task_state(prev) == TASK_RUNNING)
		enqueue(prev);
	since = bpf_map_lookup_elem(&enqueued, &pid);
	if (!since)
		return 0;
	us = (bpf_ktime_get_ns() - *since) / 1000;
	bpf_map_delete_elem(&enqueued, &pid);

	hist = bpf_map_lookup_elem(&runqlat, &key);
	if (!hist) {
		struct hist zero = {};

		bpf_map_update_elem(&runqlat, &key, &zero, BPF_NOEXIST);
		hist = bpf_map_lookup_elem(&runqlat, &key);
		if (!hist)
			return 0;
		if (per_task)
			BPF_CORE_READ_STR_INTO(&hist->comm, next, comm);
	}
	slot = log2_slot(us);
	__sync_fetch_and_add(&hist->count, 1);
	__sync_fetch_and_add(&hist->total_us, us);
	__sync_fetch_and_add(&hist->slots[slot & (SLOTS - 1)], 1);
	return 0;
}
