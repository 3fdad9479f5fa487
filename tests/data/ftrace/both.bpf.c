/* The same logic twice: as raw tracepoint programs, and as classic tracepoint programs on the events' records. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define READ(from, member)                                                        \
	({                                                                        \
		typeof((from)->member) value = 0;                                 \
		bpf_probe_read_kernel(&value, sizeof(value), &(from)->member);    \
		value;                                                            \
	})

#define COUNTS(name, key_type)                     \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_HASH);   \
		__uint(max_entries, 16384);        \
		__type(key, key_type);             \
		__type(value, __u64);              \
	} name SEC(".maps")

struct task_key {
	__s32 pid;
	__s32 prio;
	char comm[16];
	__u64 state;
};

struct call_key {
	__u64 id;
	__u64 arg;
	__u64 who;
};

struct name_key {
	__u64 number;
	char name[32];
};

COUNTS(raw_switches, struct task_key);
COUNTS(tp_switches, struct task_key);
COUNTS(raw_calls, struct call_key);
COUNTS(tp_calls, struct call_key);
COUNTS(raw_names, struct name_key);
COUNTS(tp_names, struct name_key);

static void add(void *map, const void *key, __u64 more)
{
	__u64 *found = bpf_map_lookup_elem(map, key);

	if (found)
		*found += more;
	else
		bpf_map_update_elem(map, key, &more, BPF_ANY);
}

/* kernel/sched: __trace_sched_switch_state() for what a recording can show */
static __u64 reported(bool preempt, __u32 state, __u32 exit_state)
{
	__u32 bits = (state | exit_state) & 0x7f;

	if (preempt)
		return 0x100;
	if (state == 0x402)
		return 0x80;
	return bits & 0x40 ? 0x40 : bits & 0x20 ? 0x20 : bits & 0x10 ? 0x10 : bits & 8 ? 8 : bits & 4 ? 4 : bits & 2 ? 2 : bits & 1;
}

SEC("raw_tp/sched_switch") int raw_switch(u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	struct task_key key = {};

	key.pid = READ(next, pid);
	key.prio = READ(next, prio);
	bpf_probe_read_kernel(key.comm, sizeof(key.comm), &next->comm);
	key.state = reported(ctx[0], ctx[3], READ(prev, exit_state));
	add(&raw_switches, &key, 1);
	return 0;
}

SEC("tp/sched/sched_switch") int tp_switch(struct trace_event_raw_sched_switch *ctx)
{
	struct task_key key = {};

	key.pid = ctx->next_pid;
	key.prio = ctx->next_prio;
	bpf_probe_read_kernel(key.comm, sizeof(key.comm), ctx->next_comm);
	key.state = ctx->prev_state;
	add(&tp_switches, &key, 1);
	return 0;
}

SEC("raw_tp/sys_enter") int raw_enter(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	struct call_key key = { .id = ctx[1], .arg = READ(regs, si), .who = bpf_get_current_pid_tgid() };

	add(&raw_calls, &key, bpf_ktime_get_ns());
	return 0;
}

SEC("tracepoint/raw_syscalls/sys_enter") int tp_enter(struct trace_event_raw_sys_enter *ctx)
{
	struct call_key key = { .id = ctx->id, .arg = ctx->args[1], .who = bpf_get_current_pid_tgid() };

	add(&tp_calls, &key, bpf_ktime_get_ns());
	return 0;
}

SEC("raw_tp/sched_process_exec") int raw_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *bprm = (void *)ctx[2];
	struct name_key key = { .number = READ(task, pid) };

	bpf_probe_read_kernel_str(key.name, sizeof(key.name), READ(bprm, filename));
	add(&raw_names, &key, 1);
	return 0;
}

SEC("tp/sched/sched_process_exec") int tp_exec(struct trace_event_raw_sched_process_exec *ctx)
{
	struct name_key key = { .number = ctx->pid };

	bpf_probe_read_kernel_str(key.name, sizeof(key.name), (void *)ctx + (ctx->__data_loc_filename & 0xffff));
	add(&tp_names, &key, 1);
	return 0;
}

SEC("raw_tp/task_rename") int raw_rename(u64 *ctx)
{
	struct name_key key = {};

	bpf_probe_read_kernel_str(key.name, sizeof(key.name), (void *)ctx[1]);
	add(&raw_names, &key, 1);
	return 0;
}

SEC("tp/task/task_rename") int tp_rename(struct trace_event_raw_task_rename *ctx)
{
	struct name_key key = {};

	bpf_probe_read_kernel(key.name, sizeof(ctx->newcomm), ctx->newcomm);
	add(&tp_names, &key, 1);
	return 0;
}
