/* The words that BPF programs are written in. What two of them must agree on is compared, and each difference is counted. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

enum { RUNS, DIFFERENT, SUM, ROUNDS, EACH, REPEATS, SYSCALLS, PARM1, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, int);
	__type(value, int);
} inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, int);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { &inner } };

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(max_entries, 8);
	__type(value, int);
	__ulong(map_extra, 3);
} bloom SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, int);
	__type(value, int);
} next SEC(".maps");

struct kept {
	struct task_struct __kptr *task;
};

const volatile int limit = 10;
extern unsigned int LINUX_KERNEL_VERSION __kconfig;
extern const void not_there __ksym __weak;
extern int bpf_never_heard_of(void) __ksym __weak;

static __always_inline void add(__u32 which, __u64 n)
{
	__u64 *count = bpf_map_lookup_elem(&counters, &which);

	if (count)
		*count += n;
}

__weak __noinline int global(struct task_struct *task __arg_trusted __arg_nullable)
{
	return task ? task->pid : 0;
}

struct task_struct___old {
	long state;
} __attribute__((preserve_access_index));

SEC("tp_btf/sched_switch")
int BPF_PROG(switched, bool preempt, struct task_struct *prev, struct task_struct *task, unsigned int prev_state)
{
	struct task_struct *leader = 0;
	char comm[16] = {}, group[16] = {};
	int i, *p, pid = 0, differ = 0;
	__u64 sum = 0;

	add(RUNS, 1);
	BPF_CORE_READ_INTO(&pid, task, pid);
	differ += pid != task->pid;
	differ += BPF_CORE_READ(task, tgid) != task->tgid;
	differ += BPF_CORE_READ(task, se.cfs_rq) != task->se.cfs_rq;
	differ += BPF_CORE_READ(task, group_leader, pid) != task->group_leader->pid;
	differ += BPF_CORE_READ(task, group_leader, group_leader, group_leader, tgid) != task->group_leader->tgid;
	differ += BPF_PROBE_READ(task, group_leader, pid) != task->group_leader->pid;
	bpf_core_read(&leader, sizeof(leader), &task->group_leader);
	differ += leader != task->group_leader;
	BPF_CORE_READ_STR_INTO(&comm, task, comm);
	differ += comm[0] != task->comm[0];
	BPF_CORE_READ_STR_INTO(&group, task, group_leader, comm);
	differ += group[0] != task->group_leader->comm[0];
	differ += BPF_CORE_READ_BITFIELD(task, sched_reset_on_fork) != task->sched_reset_on_fork;
	differ += BPF_CORE_READ_BITFIELD_PROBED(task, in_execve) != task->in_execve;
	differ += !bpf_core_field_exists(task->comm) || !bpf_core_field_exists(struct task_struct, __state);
	differ += bpf_core_field_exists(((struct task_struct___old *)task)->state);
	differ += bpf_core_field_size(task->comm) != 16 || bpf_core_field_size(struct task_struct, pid) != 4;
	differ += bpf_core_field_offset(task->comm) != offsetof(struct task_struct, comm);
	differ += !bpf_core_type_exists(struct task_struct) || bpf_core_type_exists(struct nothing_like_it { int x; });
	differ += bpf_core_type_size(struct list_head) != 16 || !bpf_core_type_matches(struct list_head);
	differ += bpf_core_enum_value(enum bpf_map_type, BPF_MAP_TYPE_ARRAY) != BPF_MAP_TYPE_ARRAY;
	differ += !bpf_core_enum_value_exists(enum bpf_map_type, BPF_MAP_TYPE_HASH);
	differ += container_of(&task->se, struct task_struct, se) != task;
	differ += bpf_htons(0x1234) != 0x3412 || bpf_ntohl(bpf_htonl(pid)) != pid || bpf_cpu_to_be64(1) != 1ULL << 56;
	differ += bpf_ksym_exists(bpf_never_heard_of) || &not_there != NULL;
	differ += LINUX_KERNEL_VERSION < KERNEL_VERSION(5, 0, 0) || global(task) != pid;
	add(DIFFERENT, differ);

	bpf_for(i, 0, limit) {
		if (i == 7)
			break;
		sum += i;
	}
	add(SUM, sum);
	bpf_for(i, 0, limit)
		add(ROUNDS, 1);
	bpf_for_each(num, p, 3, 6)
		add(EACH, *p);
	bpf_repeat(4)
		add(REPEATS, 1);
	if (preempt)
		bpf_tail_call_static(ctx, &next, 2);
	return 0;
}

SEC("raw_tp/sys_enter")
int BPF_PROG(entered, struct pt_regs *regs, long id)
{
	char text[32];

	add(SYSCALLS, 1);
	add(PARM1, PT_REGS_PARM1_CORE_SYSCALL(regs) != BPF_CORE_READ(regs, di));
	if (id == 1) {
		BPF_SNPRINTF(text, sizeof(text), "%d-%s", 7, "x");
		bpf_printk("none");
		bpf_printk("%d %d %d", 1, 2, 3);
		bpf_printk("%s %d %d %d %d", text, 1, 2, 3, 4);
	}
	return 0;
}

/* Programs of other kinds have to compile, although none of them runs here. */
SEC("kprobe/do_nanosleep")
int BPF_KPROBE(function, struct hrtimer_sleeper *sleeper, int mode, char *text) { return mode + text[0] + PT_REGS_IP(ctx); }

SEC("kretprobe/do_nanosleep")
int BPF_KRETPROBE(function_returned, long result) { return result; }

SEC("uprobe")
int BPF_UPROBE(user_function, int a, int b, int c, int d, int e) { return a + b + c + d + e; }

SEC("ksyscall/openat")
int BPF_KSYSCALL(system_call, int dfd, const char *name, int flags) { return dfd + flags + !name; }

struct pair {
	long a, b;
};

SEC("fentry/nothing")
int BPF_PROG2(by_value, struct pair, pair, int, n, char, c) { return pair.a + pair.b + n + c; }

SEC("iter/task")
int dump_task(struct bpf_iter__task *ctx)
{
	BPF_SEQ_PRINTF(ctx->meta->seq, "%d %d\n", 1, 2);
	return 0;
}

SEC("raw_tp/task_rename")
int BPF_PROG(nothing) { return 0; }
