// out = A x, A in compressed sparse rows. A warp a row; its lanes meet in a tree of shuffles whose width is the number of lanes that had
// something to add, a power of two.

extern "C" __global__ void spmv(const int *__restrict__ starts, const unsigned short *__restrict__ columns,
                                const float *__restrict__ values, const float *__restrict__ x, float *__restrict__ out, int rows)
{
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) {
        return;
    }
    int start = starts[row], end = starts[row + 1];
    float sum = 0;
    for (int i = start + lane; i < end; i += 32) {
        sum += values[i] * x[columns[i]];
    }
    int width = 32 - __clz(max(0, min(32, end - start) - 1));
    for (int distance = 1 << width >> 1; distance > 0; distance /= 2) {
        sum += __shfl_down_sync(0xffffffff, sum, distance);
    }
    if (lane == 0) {
        out[row] = sum;
    }
}
