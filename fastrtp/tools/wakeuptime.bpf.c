/* How long tasks were blocked, by who woke them. */
#include "vmlinux.h"
#include "tools.bpf.h"

struct pair {
	__u32 waker_pid;
	__u32 pid;
	char waker[TASK_COMM_LEN];
	char comm[TASK_COMM_LEN];
};

HISTS(answer, struct pair);

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev)
{
	if (prev->pid && prev->__state && is_wanted(prev->pid))
		begin(prev->pid);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *task)
{
	struct pair pair = {};
	struct hist *hist;
	__u64 blocked;

	if (!end(task->pid, &blocked))
		return 0;
	pair.pid = task->pid;
	BPF_CORE_READ_STR_INTO(&pair.comm, task, comm);
	pair.waker_pid = bpf_get_current_pid_tgid();
	bpf_get_current_comm(&pair.waker, sizeof(pair.waker));
	hist = element(&answer, &pair, &no_hist);
	if (hist)
		count_in(hist, blocked);
	return 0;
}
