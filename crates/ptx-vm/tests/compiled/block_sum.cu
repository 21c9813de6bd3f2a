// out[block] = the sum of x[block], [blocks, n]. Shuffles within a warp, shared memory between warps. Blocks of whole warps.

__device__ __forceinline__ float warp_sum(float value)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_down_sync(0xffffffff, value, distance);
    }
    return value;
}

extern "C" __global__ void block_sum(const float *__restrict__ x, float *__restrict__ out, int n)
{
    __shared__ float parts[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        sum += x[(size_t)blockIdx.x * n + i];
    }
    sum = warp_sum(sum);
    if (lane == 0) {
        parts[warp] = sum;
    }
    __syncthreads();
    if (warp == 0) {
        sum = warp_sum(lane < warps ? parts[lane] : 0);
        if (lane == 0) {
            out[blockIdx.x] = sum;
        }
    }
}
