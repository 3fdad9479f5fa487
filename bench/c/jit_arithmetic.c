/* Integer arithmetic: dependent chains, 32-bit halves, division, bit tricks. */
#include "bench.h"

ENTRY(alu64)
{
	u64 a = len, b = 0x9e3779b97f4a7c15ull;

	for (u64 i = 0; i < len; i++) {
		a = a * 6364136223846793005ull + b;
		b ^= a >> 29;
		a += b << 7;
		b -= i;
	}
	return a ^ b;
}

ENTRY(alu32)
{
	u32 a = len, b = 0x85ebca6b;

	for (u32 i = 0; i < (u32)len; i++) {
		a = a * 1664525u + b;
		b ^= a >> 13;
		a += b << 5;
		b -= i;
	}
	return ((u64)a << 32) | b;
}

ENTRY(divide)
{
	u64 sum = 0, n = len * 0x123456789ull;

	for (u64 i = 1; i <= len; i++) {
		sum += n / (i | 1);
		sum ^= n % (i + 3);
		n += 0x10001;
	}
	return sum;
}

ENTRY(divide32)
{
	u32 sum = 0, n = (u32)len * 0x12345679u;

	for (u32 i = 1; i <= (u32)len; i++) {
		sum += n / (i | 1);
		sum ^= n % 10u;
		n += 0x10001;
	}
	return sum;
}

ENTRY(gcd)
{
	u64 sum = 0;

	for (u64 i = 1; i <= len / 8; i++) {
		u64 a = i * 40503 + 1, b = i * 2654435761u | 1;

		while (b) {
			u64 t = a % b;

			a = b;
			b = t;
		}
		sum += a;
	}
	return sum;
}

ENTRY(bits)
{
	u64 x = 0x0123456789abcdefull ^ len, sum = 0;

	for (u64 i = 0; i < len; i++) {
		u64 v = x;

		v = v - ((v >> 1) & 0x5555555555555555ull);
		v = (v & 0x3333333333333333ull) + ((v >> 2) & 0x3333333333333333ull);
		v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0full;
		sum += (v * 0x0101010101010101ull) >> 56;
		x = (x << 1) ^ ((x >> 63) * 0x42f0e1eba9ea3693ull) ^ i;
	}
	return sum;
}

ENTRY(log2_of)
{
	u64 sum = 0, x = len | 1;

	for (u64 i = 0; i < len; i++) {
		u64 v = x, r = 0;

		if (v >> 32) { v >>= 32; r += 32; }
		if (v >> 16) { v >>= 16; r += 16; }
		if (v >> 8) { v >>= 8; r += 8; }
		if (v >> 4) { v >>= 4; r += 4; }
		if (v >> 2) { v >>= 2; r += 2; }
		if (v >> 1) r += 1;
		sum += r;
		x = x * 6364136223846793005ull + 1442695040888963407ull;
	}
	return sum;
}
