/* What the tools share: a log2 histogram. Include vmlinux.h and bpf_helpers.h first. */
#define SLOTS 32

struct hist {
	__u32 slots[SLOTS]; /* slot s: values of [2^s, 2^(s+1)), slot 0 from 0 */
};

static __noinline __u32 log2_u32(__u32 v)
{
	__u32 shift, r;

	r = (v > 0xffff) << 4; v >>= r;
	shift = (v > 0xff) << 3; v >>= shift; r |= shift;
	shift = (v > 0xf) << 2; v >>= shift; r |= shift;
	shift = (v > 0x3) << 1; v >>= shift; r |= shift;
	return r | (v >> 1);
}

static __always_inline __u32 log2_u64(__u64 v)
{
	__u32 high = v >> 32;

	return high ? log2_u32(high) + 32 : log2_u32(v);
}

static __always_inline void count_in(struct hist *hist, __u64 value)
{
	__u32 slot = log2_u64(value);

	asm volatile("" : "+r"(slot)); /* the check that the verifier needs stays where the index is used */
	if (slot >= SLOTS)
		slot = SLOTS - 1;
	__sync_fetch_and_add(&hist->slots[slot], 1);
}
