/* What a tier of replay could get wrong: own stacks, faults, nesting, tail calls, per-CPU values, casts, clocks. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

enum { STACK, CONTEXT, FAULTS, PRINTED, NESTED, JUMPED, LANDED, TIMES, JIFFIES, TASKS, CPUS, RANDOM, CASTS, SLOTS };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} sums SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} by_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} recent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} ring SEC(".maps");

SEC("raw_tp/sched_process_exit")
int landing(__u64 *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, int(void *));
} jumps SEC(".maps") = { .values = { [1] = (void *)&landing } };

static __always_inline void add(__u32 slot, __u64 amount)
{
	__u64 *sum = bpf_map_lookup_elem(&sums, &slot);

	if (sum)
		*sum += amount;
}

SEC("raw_tp/sched_switch")
int stack(__u64 *ctx)
{
	volatile __u64 mine = ctx[1] != 0;
	__u64 copy = 0, arg = 0;

	if (bpf_probe_read_kernel(&copy, sizeof(copy), (void *)&mine) == 0)
		add(STACK, copy);
	if (bpf_probe_read_kernel(&arg, sizeof(arg), ctx + 2) == 0)
		add(CONTEXT, arg != 0);
	return 0;
}

SEC("raw_tp/sched_switch")
int faulting(__u64 *ctx)
{
	__u64 value;

	if (bpf_probe_read_kernel(&value, sizeof(value), (void *)-4096L) < 0)
		add(FAULTS, 1);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int printing(__u64 *ctx)
{
	static const char format[] = "fork at %llu";

	bpf_trace_printk(format, sizeof(format), bpf_ktime_get_ns());
	add(PRINTED, 1);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int behind_printing(__u64 *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx[1];

	add(TASKS, BPF_CORE_READ(child, pid));
	return 0;
}

SEC("raw_tp/bpf_trace_printk")
int nested(__u64 *ctx)
{
	__u64 copy, mine = 1;

	if (bpf_probe_read_kernel(&copy, sizeof(copy), &mine) == 0)
		add(NESTED, copy);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int jumping(__u64 *ctx)
{
	add(JUMPED, 1);
	bpf_tail_call(ctx, &jumps, 1);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int landing(__u64 *ctx)
{
	add(LANDED, 1);
	return 0;
}

SEC("raw_tp/sys_enter")
int clocks(__u64 *ctx)
{
	__u32 cpu = bpf_get_smp_processor_id(), pid = bpf_get_current_pid_tgid();
	__u64 one = 1, *count = bpf_map_lookup_elem(&by_cpu, &pid), *sample;

	if (count)
		*count += 1;
	else
		bpf_map_update_elem(&by_cpu, &pid, &one, BPF_ANY);
	bpf_map_update_elem(&recent, &pid, &one, BPF_ANY);
	add(TIMES, bpf_ktime_get_ns());
	add(JIFFIES, bpf_jiffies64());
	add(CPUS, cpu);
	sample = bpf_ringbuf_reserve(&ring, 8, 0);
	if (sample) {
		*sample = bpf_ktime_get_ns();
		bpf_ringbuf_submit(sample, 0);
	}
	return 0;
}

SEC("raw_tp/signal_generate")
int casts(__u64 *ctx)
{
	add(CASTS, ctx[0] + ctx[3] + ctx[4]);
	add(RANDOM, bpf_get_prandom_u32());
	return 0;
}
