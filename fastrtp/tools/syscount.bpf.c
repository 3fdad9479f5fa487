/* System calls: how many, how many failed, how long they took; by call, or by thread. */
#include "vmlinux.h"
#include "tools.bpf.h"

#define MAX_ERRNO 4095

const volatile bool by_thread = false;
/* Only calls that failed; only those that failed with this errno. */
const volatile bool failed_only = false;
const volatile __s64 targ_errno = 0;

struct call_key {
	__s32 number; /* -1 where rows are threads */
	__u32 pid;    /* 0 where rows are calls */
};

struct calls {
	__u64 count;
	__u64 failed;
	__u64 total_ns;
	__u64 longest_ns;
	char comm[TASK_COMM_LEN];
};

struct entered {
	__u64 when;
	__s64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, __u32);
	__type(value, struct entered);
} entered SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct call_key);
	__type(value, struct calls);
} answer SEC(".maps");

SEC("tp_btf/sys_enter")
int BPF_PROG(on_enter, struct pt_regs *regs, long id)
{
	__u32 pid = bpf_get_current_pid_tgid();
	struct entered enters = { .when = bpf_ktime_get_ns(), .number = id };

	if (is_wanted(pid))
		bpf_map_update_elem(&entered, &pid, &enters, BPF_ANY);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_exit, struct pt_regs *regs, long ret)
{
	__u32 pid = bpf_get_current_pid_tgid();
	struct entered *since = bpf_map_lookup_elem(&entered, &pid);
	bool failed = ret < 0 && ret >= -MAX_ERRNO;
	struct call_key key = {};
	struct calls zero = {}, *calls;
	__u64 took;

	if (!since)
		return 0;
	took = bpf_ktime_get_ns() - since->when;
	key.number = by_thread ? -1 : since->number;
	key.pid = by_thread ? pid : 0;
	bpf_map_delete_elem(&entered, &pid);
	if ((failed_only && !failed) || (targ_errno && ret != -targ_errno))
		return 0;
	if (by_thread)
		bpf_get_current_comm(&zero.comm, sizeof(zero.comm));
	calls = element(&answer, &key, &zero);
	if (!calls)
		return 0;
	__sync_fetch_and_add(&calls->count, 1);
	__sync_fetch_and_add(&calls->failed, failed);
	__sync_fetch_and_add(&calls->total_ns, took);
	if (took > calls->longest_ns)
		calls->longest_ns = took;
	return 0;
}
