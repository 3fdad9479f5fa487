/* How long block requests take from their issue, or from when they were queued, to their completion; by operation. */
#include "vmlinux.h"
#include "tools.bpf.h"

#define REQ_OP_MASK 0xff

const volatile bool queued = false;

struct operation {
	__u32 operation;
};

struct request_seen {
	__u64 when;
	struct operation key;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, __u64);
	__type(value, struct request_seen);
} requests SEC(".maps");

HISTS(answer, struct operation);

static __always_inline int start(struct request *rq)
{
	struct request_seen seen = { .when = bpf_ktime_get_ns() };
	__u64 key = (__u64)rq;

	seen.key.operation = rq->cmd_flags & REQ_OP_MASK;
	bpf_map_update_elem(&requests, &key, &seen, BPF_ANY);
	return 0;
}

SEC("tp_btf/block_rq_insert")
int BPF_PROG(on_insert, struct request *rq)
{
	return queued ? start(rq) : 0;
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(on_issue, struct request *rq)
{
	__u64 key = (__u64)rq;

	if (queued && bpf_map_lookup_elem(&requests, &key))
		return 0;
	return start(rq);
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(on_complete, struct request *rq, int error, unsigned int nr_bytes)
{
	__u64 key = (__u64)rq;
	struct request_seen *seen = bpf_map_lookup_elem(&requests, &key);
	struct hist *hist;

	if (!seen)
		return 0;
	hist = element(&answer, &seen->key, &no_hist);
	if (hist)
		count_in(hist, bpf_ktime_get_ns() - seen->when);
	bpf_map_delete_elem(&requests, &key);
	return 0;
}
