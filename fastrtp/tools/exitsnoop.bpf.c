/* Tasks that end, and how long they lived where their beginning was seen. */
#include "vmlinux.h"
#include "tools.bpf.h"

struct event {
	__u64 time_ns;
	__u64 age_ns; /* 0: it began before the recording */
	__u32 pid;
	__u32 cpu;
	char comm[TASK_COMM_LEN];
};

EVENTS(answer);

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	if (is_wanted(child->pid))
		begin(child->pid);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	struct event event = {};

	if (!is_wanted(task->pid))
		return 0;
	event.time_ns = bpf_ktime_get_ns();
	event.pid = task->pid;
	event.cpu = bpf_get_smp_processor_id();
	BPF_CORE_READ_STR_INTO(&event.comm, task, comm);
	end(task->pid, &event.age_ns);
	bpf_ringbuf_output(&answer, &event, sizeof(event), 0);
	return 0;
}
