/* Hashes and checksums, as packet and key code has them. */
#include "bench.h"

#define ROTL32(x, r) (((x) << (r)) | ((x) >> (32 - (r))))
#define ROTL64(x, r) (((x) << (r)) | ((x) >> (64 - (r))))

ENTRY(fnv1a)
{
	const u8 *p = mem;
	u64 hash = 0xcbf29ce484222325ull;

	for (u64 i = 0; i < len; i++)
		hash = (hash ^ p[i]) * 0x100000001b3ull;
	return hash;
}

ENTRY(murmur3)
{
	const u8 *p = mem;
	u32 hash = 0x9747b28c;

	for (u64 i = 0; i + 4 <= len; i += 4) {
		u32 k = UNALIGNED(u32, p + i) * 0xcc9e2d51u;

		k = ROTL32(k, 15) * 0x1b873593u;
		hash = ROTL32(hash ^ k, 13) * 5 + 0xe6546b64u;
	}
	hash ^= (u32)len;
	hash = (hash ^ (hash >> 16)) * 0x85ebca6bu;
	hash = (hash ^ (hash >> 13)) * 0xc2b2ae35u;
	return hash ^ (hash >> 16);
}

#define JHASH_MIX(a, b, c)                                                                                                       \
	do {                                                                                                                     \
		a -= c; a ^= ROTL32(c, 4); c += b;                                                                               \
		b -= a; b ^= ROTL32(a, 6); a += c;                                                                               \
		c -= b; c ^= ROTL32(b, 8); b += a;                                                                               \
		a -= c; a ^= ROTL32(c, 16); c += b;                                                                              \
		b -= a; b ^= ROTL32(a, 19); a += c;                                                                              \
		c -= b; c ^= ROTL32(b, 4); b += a;                                                                               \
	} while (0)

ENTRY(jenkins)
{
	const u8 *p = mem;
	u32 a = 0xdeadbeef + (u32)len, b = a, c = a;

	for (u64 i = 0; i + 12 <= len; i += 12) {
		a += UNALIGNED(u32, p + i);
		b += UNALIGNED(u32, p + i + 4);
		c += UNALIGNED(u32, p + i + 8);
		JHASH_MIX(a, b, c);
	}
	return ((u64)b << 32) | c;
}

#define SIPROUND                                                                                                                 \
	do {                                                                                                                     \
		v0 += v1; v1 = ROTL64(v1, 13); v1 ^= v0; v0 = ROTL64(v0, 32);                                                    \
		v2 += v3; v3 = ROTL64(v3, 16); v3 ^= v2;                                                                         \
		v0 += v3; v3 = ROTL64(v3, 21); v3 ^= v0;                                                                         \
		v2 += v1; v1 = ROTL64(v1, 17); v1 ^= v2; v2 = ROTL64(v2, 32);                                                    \
	} while (0)

ENTRY(siphash)
{
	const u8 *p = mem;
	u64 v0 = 0x736f6d6570736575ull, v1 = 0x646f72616e646f6dull, v2 = 0x6c7967656e657261ull, v3 = 0x7465646279746573ull;

	for (u64 i = 0; i + 8 <= len; i += 8) {
		u64 m = UNALIGNED(u64, p + i);

		v3 ^= m;
		SIPROUND;
		v0 ^= m;
	}
	v2 ^= 0xff;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

ENTRY(internet_checksum)
{
	const u8 *p = mem;
	u64 sum = 0;

	for (u64 i = 0; i + 2 <= len; i += 2) {
		sum += UNALIGNED(u16, p + i);
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (u16)~sum;
}

ENTRY(adler32)
{
	const u8 *p = mem;
	u32 a = 1, b = 0;

	for (u64 i = 0; i < len; i++) {
		a += p[i];
		if (a >= 65521)
			a -= 65521;
		b += a;
		if (b >= 65521)
			b -= 65521;
	}
	return (b << 16) | a;
}

ENTRY(crc32_bitwise)
{
	const u8 *p = mem;
	u32 crc = ~0u;

	for (u64 i = 0; i < len / 4; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (0xedb88320u & -(crc & 1));
	}
	return ~crc;
}

ENTRY(xorshift)
{
	u64 x = len | 1, sum = 0;

	for (u64 i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		sum += x;
	}
	return sum;
}

ENTRY(byte_swaps)
{
	const u64 *p = mem;
	u64 sum = 0;

	for (u64 i = 0; i < len / 8; i++) {
		sum += __builtin_bswap64(p[i]);
		sum ^= __builtin_bswap32((u32)p[i]);
		sum += __builtin_bswap16((u16)p[i]);
	}
	return sum;
}
