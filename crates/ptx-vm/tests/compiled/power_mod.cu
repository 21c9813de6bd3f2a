// out[i] = x[i]^exponent modulo modulus below 2^32: 64-bit products, remainders and shifts, a loop that ends where the exponent does.
// And in out[n + i] the upper half of the square of x[i] less the quotient of x[i], as a signed number, by 7.

extern "C" __global__ void power_mod(const unsigned long long *__restrict__ x, unsigned long long *__restrict__ out,
                                     unsigned long long modulus, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    unsigned long long base = x[i] % modulus, power = 1 % modulus;
    for (unsigned long long exponent = x[i] >> (i % 64); exponent > 0; exponent >>= 1) {
        if (exponent & 1) {
            power = power * base % modulus;
        }
        base = base * base % modulus;
    }
    out[i] = power;
    out[n + i] = __umul64hi(x[i], x[i]) - (long long)x[i] / 7;
}
