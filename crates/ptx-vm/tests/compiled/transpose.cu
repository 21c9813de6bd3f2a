// out[j][i] = x[i][j], [rows, columns]. Tiles of 32 x 32 in shared memory, padded by a column; blocks of 32 x 8 threads.

extern "C" __global__ void transpose(const unsigned int *__restrict__ x, unsigned int *__restrict__ out, int rows, int columns)
{
    __shared__ unsigned int tile[32][33];
    int left = blockIdx.x * 32, top = blockIdx.y * 32;
    for (int y = threadIdx.y; y < 32; y += 8) {
        if (top + y < rows && left + threadIdx.x < columns) {
            tile[y][threadIdx.x] = x[(top + y) * columns + left + threadIdx.x];
        }
    }
    __syncthreads();
    for (int y = threadIdx.y; y < 32; y += 8) {
        if (left + y < columns && top + threadIdx.x < rows) {
            out[(left + y) * rows + top + threadIdx.x] = tile[threadIdx.x][y];
        }
    }
}
