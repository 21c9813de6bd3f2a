// c = a b, halves [m, k] [k, n] to f32, by ldmatrix and mma.m16n8k16. Blocks of 64 threads, each warp 16 x 16 of a tile of 32 x 16;
// rows in shared memory are padded to 48 bytes.

#include <cuda_fp16.h>

extern "C" __global__ void mma_gemm(const __half *__restrict__ a, const __half *__restrict__ b, float *__restrict__ c, int m, int n, int k)
{
    __shared__ __align__(16) __half left[32][24], right[16][24];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int top = blockIdx.y * 32, side = blockIdx.x * 16;
    float sums[2][4] = {};
    for (int start = 0; start < k; start += 16) {
        for (int i = threadIdx.x; i < 32 * 16; i += 64) {
            int row = top + i / 16, column = start + i % 16;
            left[i / 16][i % 16] = row < m && column < k ? a[row * k + column] : __half(0);
        }
        for (int i = threadIdx.x; i < 16 * 16; i += 64) {
            int row = start + i / 16, column = side + i % 16;
            right[i / 16][i % 16] = row < k && column < n ? b[row * n + column] : __half(0);
        }
        __syncthreads();
        unsigned int x[4], y[4];
        unsigned int at = __cvta_generic_to_shared(&left[16 * warp + lane % 16][lane / 16 * 8]);
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(at)
                     : "memory");
        at = __cvta_generic_to_shared(&right[lane % 16][lane / 16 * 8]);
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(y[0]), "=r"(y[1]), "=r"(y[2]), "=r"(y[3])
                     : "r"(at)
                     : "memory");
        for (int part = 0; part < 2; part++) {
            float *d = sums[part];
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                         "{%0, %1, %2, %3};"
                         : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                         : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[2 * part]), "r"(y[2 * part + 1]));
        }
        __syncthreads();
    }
    for (int i = 0; i < 8; i++) {
        int row = top + 16 * warp + lane / 4 + i % 4 / 2 * 8;
        int column = side + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (row < m && column < n) {
            c[row * n + column] = sums[i / 4][i % 4];
        }
    }
}
