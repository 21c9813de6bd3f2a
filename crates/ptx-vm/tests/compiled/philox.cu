// out[i] = Philox 4x32-10 of the counter (i, 0, 0, 0) and the key (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
// 1, 2, 3", 2011). High halves of 32-bit products, one store of 16 bytes.

extern "C" __global__ void philox(uint4 *out, unsigned int key_0, unsigned int key_1, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    uint4 c = make_uint4(i, 0, 0, 0);
    for (int round = 0; round < 10; round++) {
        unsigned int high_0 = __umulhi(0xD2511F53u, c.x), low_0 = 0xD2511F53u * c.x;
        unsigned int high_1 = __umulhi(0xCD9E8D57u, c.z), low_1 = 0xCD9E8D57u * c.z;
        c = make_uint4(high_1 ^ c.y ^ key_0, low_1, high_0 ^ c.w ^ key_1, low_0);
        key_0 += 0x9E3779B9u;
        key_1 += 0xBB67AE85u;
    }
    out[i] = c;
}
