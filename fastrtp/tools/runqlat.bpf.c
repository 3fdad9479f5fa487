/* How long tasks wait for a CPU after they became runnable. */
#include "vmlinux.h"
#include "tools.bpf.h"

HISTS(answer, struct who);

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
	struct who who = {};
	struct hist *hist;
	__u64 waited;

	if (prev->__state == 0)
		enqueue(prev);
	if (!end(next->pid, &waited))
		return 0;
	name_task(&who, next);
	hist = element(&answer, &who, &no_hist);
	if (hist)
		count_in(hist, waited);
	return 0;
}
