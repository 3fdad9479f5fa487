/* Latency of block requests by operation, from insertion or from issue to completion. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "tools.h"

char LICENSE[] SEC("license") = "GPL";

#define REQ_OP_MASK 0xff

const volatile bool queued = false; /* from insertion */
const volatile bool per_operation = true;

struct op_key {
	__u32 op;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u64);
	__type(value, __u64);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct op_key);
	__type(value, struct hist);
} hists SEC(".maps");

static struct hist zero;

static __always_inline int trace_start(struct request *rq, bool insert)
{
	__u64 key = (__u64)rq, now;

	if (insert != queued)
		return 0;
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&start, &key, &now, BPF_ANY);
	return 0;
}

SEC("raw_tp/block_rq_insert")
int inserted(__u64 *ctx)
{
	return trace_start((struct request *)ctx[0], true);
}

SEC("raw_tp/block_rq_issue")
int issued(__u64 *ctx)
{
	return trace_start((struct request *)ctx[0], false);
}

static __noinline int complete(struct request *rq, unsigned int bytes)
{
	__u64 id = (__u64)rq, *since, delta;
	struct op_key key = {};
	struct hist *hist;

	since = bpf_map_lookup_elem(&start, &id);
	if (!since)
		return 0;
	delta = bpf_ktime_get_ns() - *since;
	if (per_operation)
		key.op = BPF_CORE_READ(rq, cmd_flags) & REQ_OP_MASK;
	hist = bpf_map_lookup_elem(&hists, &key);
	if (!hist) {
		bpf_map_update_elem(&hists, &key, &zero, BPF_NOEXIST);
		hist = bpf_map_lookup_elem(&hists, &key);
		if (!hist)
			goto out;
	}
	count_in(hist, delta / 1000);
out:
	bpf_map_delete_elem(&start, &id);
	return 1;
}

SEC("raw_tp/block_rq_complete")
int completed(__u64 *ctx)
{
	return complete((struct request *)ctx[0], ctx[2]);
}
