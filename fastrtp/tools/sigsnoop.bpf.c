/* Signals that are sent. */
#include "vmlinux.h"
#include "tools.bpf.h"

const volatile __s32 targ_signal = 0;

struct event {
	__u64 time_ns;
	__u32 pid;
	__u32 target_pid;
	__s32 signal;
	__s32 result; /* 0 delivered, 1 ignored, 2 pending already, 3 and 4 lost */
	char comm[TASK_COMM_LEN];
	char target_comm[TASK_COMM_LEN];
};

EVENTS(answer);

SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)
{
	struct event event = {};

	event.pid = bpf_get_current_pid_tgid();
	if (!is_wanted(event.pid) || (targ_signal && sig != targ_signal))
		return 0;
	event.time_ns = bpf_ktime_get_ns();
	event.target_pid = task->pid;
	event.signal = sig;
	event.result = result;
	bpf_get_current_comm(&event.comm, sizeof(event.comm));
	BPF_CORE_READ_STR_INTO(&event.target_comm, task, comm);
	bpf_ringbuf_output(&answer, &event, sizeof(event), 0);
	return 0;
}
