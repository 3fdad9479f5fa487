/* System calls by number: how many, how many failed with which errno first, time; pids may be picked in a table. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

#define MAX_SYSCALLS 512
#define MAX_PICKED 8
#define MAX_ERRNO 4095

const volatile __u32 picked[MAX_PICKED] = {};
const volatile __u32 picked_count = 0;
const volatile bool measure = true;

struct data {
	__u64 count;
	__u64 failed;
	__u64 total_ns;
	__s32 last_errno;
	__u32 pad;
};

struct data calls[MAX_SYSCALLS];
__u64 unmatched;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, __u64);
} entered SEC(".maps");

static __noinline bool wanted(__u32 pid)
{
	if (!picked_count)
		return true;
	for (__u32 i = 0; i < MAX_PICKED; i++) {
		if (i >= picked_count)
			break;
		if (picked[i] == pid)
			return true;
	}
	return false;
}

SEC("raw_tp/sys_enter")
int enter(__u64 *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid();
	__u64 now;

	if (!measure || !wanted(pid))
		return 0;
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&entered, &pid, &now, BPF_ANY);
	return 0;
}

static __always_inline int account(__u32 pid, long id, long ret)
{
	struct data *data;
	__u64 *since;

	if (!wanted(pid) || id < 0 || id >= MAX_SYSCALLS)
		return 0;
	data = &calls[id];
	if (measure) {
		since = bpf_map_lookup_elem(&entered, &pid);
		if (!since) {
			__sync_fetch_and_add(&unmatched, 1);
			return 0;
		}
		__sync_fetch_and_add(&data->total_ns, bpf_ktime_get_ns() - *since);
		bpf_map_delete_elem(&entered, &pid);
	}
	__sync_fetch_and_add(&data->count, 1);
	if (ret < 0 && ret >= -MAX_ERRNO) {
		__sync_fetch_and_add(&data->failed, 1);
		data->last_errno = -ret;
	}
	return 0;
}

SEC("raw_tp/sys_exit")
int raw_exit(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];

	return account(bpf_get_current_pid_tgid(), BPF_CORE_READ(regs, orig_ax), ctx[1]);
}

SEC("tp_btf/sys_exit")
int btf_exit(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];

	return account(bpf_get_current_pid_tgid(), regs->orig_ax, ctx[1]);
}
