/* Loads and stores of 1 to 8 bytes, aligned and not, copies, the stack, sorting. */
#include "bench.h"

ENTRY(sum8)
{
	const u8 *p = mem;
	u64 sum = 0;

	for (u64 i = 0; i < len; i++) {
		sum = sum * 31 + p[i];
	}
	return sum;
}

ENTRY(sum_mixed)
{
	const u8 *p = mem;
	u64 sum = 0;

	for (u64 i = 0; i + 16 <= len; i += 16)
		sum += *(u64 *)(p + i) ^ *(u32 *)(p + i + 8) ^ *(u16 *)(p + i + 12) ^ p[i + 14] ^ (s64)(s8)p[i + 15] * 8;
	return sum;
}

ENTRY(unaligned)
{
	const u8 *p = mem;
	u64 sum = 0;

	for (u64 i = 1; i + 9 <= len; i += 7)
		sum += UNALIGNED(u64, p + i) ^ UNALIGNED(u32, p + i + 3) ^ UNALIGNED(u16, p + i + 5);
	return sum;
}

ENTRY(records)
{
	struct record { u64 time; u32 pid; u16 cpu; u8 prio; u8 flags; s32 delta; u32 pad; } *r = mem;
	u64 n = len / sizeof(*r), sum = 0;

	for (u64 i = 0; i < n; i++) {
		if (r[i].flags & 3)
			sum += r[i].time - r[i].delta;
		else
			sum ^= ((u64)r[i].pid << 16) + r[i].cpu + r[i].prio;
	}
	return sum;
}

ENTRY(copy_words)
{
	u64 *p = mem, half = len / 16;

	for (u64 i = 0; i < half; i++)
		p[half + i] = p[i];
	return p[half] ^ p[half + half - 1];
}

ENTRY(fill)
{
	u64 *p = mem, n = len / 16;

	for (u64 i = 0; i < n; i++)
		p[n + i] = 0x0101010101010101ull * (u8)len;
	return p[n + n - 1];
}

ENTRY(histogram)
{
	const u8 *p = mem;
	u64 slots[32] = {};
	u64 result = 0;

	for (u64 i = 0; i < len; i++)
		slots[p[i] & 31]++;
	for (u64 i = 0; i < 32; i++)
		result = result * 31 + slots[i];
	return result;
}

ENTRY(insertion_sort)
{
	const u8 *p = mem;
	u64 result = 0;

	for (u64 block = 0; block + 32 <= len; block += 32) {
		u8 sorted[32];

		for (u64 i = 0; i < 32; i++) {
			u8 value = p[block + i];
			u64 at = i;

			while (at > 0 && sorted[at - 1] > value) {
				sorted[at] = sorted[at - 1];
				at--;
			}
			sorted[at] = value;
		}
		result += ((u64)sorted[0] << 8) + sorted[16] + ((u64)sorted[31] << 20);
	}
	return result;
}

ENTRY(matrix)
{
	const u32 *p = mem;
	u64 result = 0;

	for (u64 block = 0; block + 64 <= len / 4; block += 64) {
		for (u64 i = 0; i < 4; i++)
			for (u64 j = 0; j < 4; j++) {
				u64 sum = 0;

				for (u64 k = 0; k < 4; k++)
					sum += (u64)p[block + i * 4 + k] * p[block + 16 + k * 4 + j];
				result ^= sum + i;
			}
	}
	return result;
}

/* A chain through memory: every load waits for the one before. */
ENTRY(pointer_chase)
{
	const u32 *next = mem;
	u64 n = len / 4, at = 0, sum = 0;

	for (u64 i = 0; i < n; i++) {
		at = next[at % n] % n;
		sum += at;
		at += i;
	}
	return sum;
}
