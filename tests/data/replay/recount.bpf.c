/* What the maps in churn/ hold, counted again: switches, wake-ups, latencies, system calls by thread and number. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

struct pair {
	__u32 prev, next;
};

struct hist {
	__u64 n, slots[32];
	char comm[16];
};

#define HASH(name, key_type, value_type)                                                                                         \
	struct {                                                                                                                 \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                                 \
		__uint(max_entries, 65536);                                                                                      \
		__type(key, key_type);                                                                                           \
		__type(value, value_type);                                                                                       \
	} name SEC(".maps")

HASH(switches, struct pair, __u64);
HASH(woken, __u32, __u64);
HASH(runq, __u32, struct hist);
HASH(wakeups, __u32, __u64);
HASH(syscalls, __u64, __u64);
HASH(sysargs, __u64, __u64);
HASH(sysrets, __u64, __u64);

static __always_inline void add(void *map, void *key, __u64 amount)
{
	__u64 *sum = bpf_map_lookup_elem(map, key);

	if (sum)
		__sync_fetch_and_add(sum, amount);
	else
		bpf_map_update_elem(map, key, &amount, BPF_NOEXIST);
}

static __always_inline int wake(struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, pid);
	__u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&woken, &pid, &now, BPF_ANY);
	add(&wakeups, &pid, 1);
	return 0;
}

SEC("raw_tp/sched_wakeup")
int on_wakeup(__u64 *ctx)
{
	return wake((struct task_struct *)ctx[0]);
}

SEC("raw_tp/sched_wakeup_new")
int on_wakeup_new(__u64 *ctx)
{
	return wake((struct task_struct *)ctx[0]);
}

SEC("raw_tp/sched_switch")
int on_switch(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	struct pair pair = { .prev = BPF_CORE_READ(prev, pid), .next = BPF_CORE_READ(next, pid) };
	struct hist *hist, zero = {};
	__u64 *since, waited;
	__u32 slot = 0;

	add(&switches, &pair, 1);
	since = bpf_map_lookup_elem(&woken, &pair.next);
	if (!since)
		return 0;
	waited = (bpf_ktime_get_ns() - *since) / 1000;
	bpf_map_delete_elem(&woken, &pair.next);
	hist = bpf_map_lookup_elem(&runq, &pair.next);
	if (!hist) {
		BPF_CORE_READ_STR_INTO(&zero.comm, next, comm);
		bpf_map_update_elem(&runq, &pair.next, &zero, BPF_NOEXIST);
		hist = bpf_map_lookup_elem(&runq, &pair.next);
		if (!hist)
			return 0;
	}
	for (int i = 0; i < 31; i++) {
		if (waited > 1) {
			waited >>= 1;
			slot++;
		}
	}
	hist->slots[slot & 31]++;
	hist->n++;
	return 0;
}

static __always_inline __u64 call_key(__u64 number)
{
	return bpf_get_current_pid_tgid() << 32 | (__u32)number;
}

SEC("raw_tp/sys_enter")
int on_sys_enter(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	__u64 key = call_key(ctx[1]);

	add(&syscalls, &key, 1);
	add(&sysargs, &key, BPF_CORE_READ(regs, dx));
	return 0;
}

SEC("raw_tp/sys_exit")
int on_sys_exit(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	__u64 key = call_key(BPF_CORE_READ(regs, orig_ax));

	add(&sysrets, &key, ctx[1]);
	return 0;
}
