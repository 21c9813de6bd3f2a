// out[i] = x[0] + ... + x[i], modulo 2^32. One block of 256 threads goes over x in pieces and carries the sum along.

extern "C" __global__ void inclusive_scan(const unsigned int *__restrict__ x, unsigned int *__restrict__ out, int n)
{
    __shared__ unsigned int sums[8];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned int carry = 0;
    for (int start = 0; start < n; start += 256) {
        int i = start + threadIdx.x;
        unsigned int sum = i < n ? x[i] : 0;
        for (int distance = 1; distance < 32; distance *= 2) {
            unsigned int before = __shfl_up_sync(0xffffffff, sum, distance);
            if (lane >= distance) {
                sum += before;
            }
        }
        if (lane == 31) {
            sums[warp] = sum;
        }
        __syncthreads();
        unsigned int before = carry;
        for (int other = 0; other < 8; other++) {
            before += other < warp ? sums[other] : 0;
            carry += sums[other];
        }
        if (i < n) {
            out[i] = before + sum;
        }
        __syncthreads();
    }
}
