/* Each time that a task waited for a CPU for longer than a limit. */
#include "vmlinux.h"
#include "tools.bpf.h"

const volatile __u64 min_ns = 10000000;

struct event {
	__u64 time_ns;
	__u64 waited_ns;
	__u32 pid;
	__u32 prev_pid;
	char comm[TASK_COMM_LEN];
	char prev_comm[TASK_COMM_LEN];
	__u32 cpu;
};

EVENTS(answer);

static __always_inline void enqueue(struct task_struct *task)
{
	if (task->pid && is_wanted(task->pid))
		begin(task->pid);
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *task)
{
	enqueue(task);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(on_wakeup_new, struct task_struct *task)
{
	enqueue(task);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct event event = {};
	__u64 waited;

	if (prev->__state == 0)
		enqueue(prev);
	if (!end(next->pid, &waited) || waited <= min_ns)
		return 0;
	event.time_ns = bpf_ktime_get_ns();
	event.waited_ns = waited;
	event.pid = next->pid;
	event.prev_pid = prev->pid;
	event.cpu = bpf_get_smp_processor_id();
	BPF_CORE_READ_STR_INTO(&event.comm, next, comm);
	BPF_CORE_READ_STR_INTO(&event.prev_comm, prev, comm);
	bpf_ringbuf_output(&answer, &event, sizeof(event), 0);
	return 0;
}
