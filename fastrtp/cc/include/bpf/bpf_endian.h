/* Numbers between the byte order of the machine and that of the network; constants stay constants. */
#ifndef __BPF_ENDIAN__
#define __BPF_ENDIAN__

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ___bpf_swap_be(bits, x) __builtin_bswap##bits(x)
#define ___bpf_swap_le(bits, x) (x)
#else
#define ___bpf_swap_be(bits, x) (x)
#define ___bpf_swap_le(bits, x) __builtin_bswap##bits(x)
#endif

#define bpf_htons(x) ((__be16)___bpf_swap_be(16, (__u16)(x)))
#define bpf_ntohs(x) ((__u16)___bpf_swap_be(16, (__u16)(x)))
#define bpf_htonl(x) ((__be32)___bpf_swap_be(32, (__u32)(x)))
#define bpf_ntohl(x) ((__u32)___bpf_swap_be(32, (__u32)(x)))
#define bpf_cpu_to_be64(x) ((__be64)___bpf_swap_be(64, (__u64)(x)))
#define bpf_be64_to_cpu(x) ((__u64)___bpf_swap_be(64, (__u64)(x)))

#define __bpf_htons(x) bpf_htons(x)
#define __bpf_ntohs(x) bpf_ntohs(x)
#define __bpf_htonl(x) bpf_htonl(x)
#define __bpf_ntohl(x) bpf_ntohl(x)
#define __bpf_cpu_to_be64(x) bpf_cpu_to_be64(x)
#define __bpf_be64_to_cpu(x) bpf_be64_to_cpu(x)

#endif
