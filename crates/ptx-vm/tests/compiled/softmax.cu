// out[row] = softmax(x[row]), [rows, n]. One block of 128 threads a row; the row lies in dynamic shared memory,
// the maximum and the sum go through a tree in static shared memory.

extern __shared__ float row[];

extern "C" __global__ void __launch_bounds__(128) softmax(const float *x, float *out, int n)
{
    __shared__ float tree[128];
    int thread = threadIdx.x;
    const float *from = x + (size_t)blockIdx.x * n;
    float most = -__int_as_float(0x7f800000);
    for (int i = thread; i < n; i += 128) {
        row[i] = from[i];
        most = fmaxf(most, row[i]);
    }
    tree[thread] = most;
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (thread < half) {
            tree[thread] = fmaxf(tree[thread], tree[thread + half]);
        }
        __syncthreads();
    }
    most = tree[0];
    __syncthreads();

    float sum = 0;
    for (int i = thread; i < n; i += 128) {
        row[i] = expf(row[i] - most);
        sum += row[i];
    }
    tree[thread] = sum;
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (thread < half) {
            tree[thread] += tree[thread + half];
        }
        __syncthreads();
    }
    sum = tree[0];
    for (int i = thread; i < n; i += 128) {
        out[(size_t)blockIdx.x * n + i] = row[i] / sum;
    }
}
