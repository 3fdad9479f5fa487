/* One source, two targets: BPF (-target bpf, __bpf__) and the host (a shared library). An ENTRY takes memory and its length
 * and returns a result that depends on all the work done, so that both can be checked against each other. */
#ifndef BENCH_H
#define BENCH_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;

#define INLINE static inline __attribute__((always_inline))

/* A function that BPF has as a subprogram; on the host the compiler may inline it, as fastrtp may. */
#ifdef __bpf__
#define SUBPROG static __attribute__((noinline))
#else
#define SUBPROG static
#endif

#ifdef __bpf__
#define ENTRY(name) __attribute__((section("raw_tp"), used)) u64 name(void *mem, u64 len)
#else
#define ENTRY(name) __attribute__((visibility("default"))) u64 name(void *mem, u64 len)
#endif

/* Access without an alignment promise, as a packet or a record in a ring is read. */
#define UNALIGNED(type, ptr) (((struct { type value; } __attribute__((packed)) *)(ptr))->value)

#endif
