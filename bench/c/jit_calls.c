/* Subprograms, deep nests of loops, and one large body. */
#include "bench.h"

SUBPROG u64 mix(u64 a, u64 b)
{
	a ^= b >> 31;
	return a * 0x9e3779b97f4a7c15ull + (b << 3);
}

SUBPROG u64 step(u64 a, u64 b, u64 c)
{
	return mix(a + c, b) ^ mix(b, c);
}

ENTRY(calls)
{
	u64 a = len, b = 1;

	for (u64 i = 0; i < len; i++) {
		a = mix(a, b);
		b += i;
	}
	return a ^ b;
}

ENTRY(nested_calls)
{
	u64 a = len, b = 1;

	for (u64 i = 0; i < len; i++) {
		a = step(a, b, i);
		b ^= a;
	}
	return a ^ b;
}

SUBPROG u64 sum_of(const u8 *p, u64 count)
{
	u64 sum = 0;

	for (u64 i = 0; i < count; i++)
		sum += p[i];
	return sum;
}

ENTRY(calls_with_memory)
{
	const u8 *p = mem;
	u64 sum = 0;

	for (u64 i = 0; i + 24 <= len; i += 24)
		sum = sum * 3 + sum_of(p + i, 24);
	return sum;
}

/* What the callee writes goes through the caller's frame. */
struct pair { u64 low, high; };

SUBPROG u64 split(u64 value, struct pair *out)
{
	out->low = value & 0xffffffff;
	out->high = value >> 32;
	return out->low + 1;
}

ENTRY(calls_with_stack)
{
	struct pair pair;
	u64 sum = 0, value = 0x0123456789abcdefull;

	for (u64 i = 0; i < len; i++) {
		sum += split(value, &pair);
		value = value * 5 + pair.high;
		sum ^= pair.low;
	}
	return sum;
}

ENTRY(nested_loops)
{
	u64 sum = 0;

	for (u64 i = 0; i < len / 64; i++)
		for (u64 j = 0; j < 16; j++)
			for (u64 k = 0; k < 8; k++) {
				sum += (i * j) ^ k;
			}
	return sum;
}

ENTRY(collatz)
{
	u64 total = 0;

	for (u64 i = 1; i <= len / 16; i++) {
		u64 n = i;

		for (u32 guard = 0; n != 1 && guard < 500; guard++) {
			n = n & 1 ? 3 * n + 1 : n >> 1;
			total++;
		}
	}
	return total;
}

#define ROUND(k)                                                                                                                 \
	a += (b ^ (k)) + (c & d);                                                                                                \
	b = (b << ((k) % 31 + 1)) | (b >> (63 - (k) % 31));                                                                      \
	c ^= a * (2 * (k) + 1);                                                                                                  \
	d += c >> ((k) % 13 + 1);                                                                                                \
	if (d & (1ull << ((k) % 60)))                                                                                            \
		a ^= d;
#define ROUNDS4(k) ROUND((k)) ROUND((k) + 1) ROUND((k) + 2) ROUND((k) + 3)
#define ROUNDS16(k) ROUNDS4((k)) ROUNDS4((k) + 4) ROUNDS4((k) + 8) ROUNDS4((k) + 12)

/* About 900 instructions without a loop in them. */
ENTRY(large_body)
{
	u64 a = len, b = 0x243f6a8885a308d3ull, c = 0x13198a2e03707344ull, d = 0xa4093822299f31d0ull;

	for (u64 i = 0; i < len / 32; i++) {
		ROUNDS16(0) ROUNDS16(16) ROUNDS16(32) ROUNDS16(48)
		a += i;
	}
	return a ^ b ^ c ^ d;
}
