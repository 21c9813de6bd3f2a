// counts[b] += how many of x[0..n] are b. Atomics on a histogram of the block in shared memory, then on the one of the grid.

extern "C" __global__ void histogram(const unsigned char *__restrict__ x, unsigned int *counts, int n)
{
    __shared__ unsigned int own[256];
    for (int bin = threadIdx.x; bin < 256; bin += blockDim.x) {
        own[bin] = 0;
    }
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        atomicAdd(&own[x[i]], 1u);
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < 256; bin += blockDim.x) {
        if (own[bin] > 0) {
            atomicAdd(&counts[bin], own[bin]);
        }
    }
}
