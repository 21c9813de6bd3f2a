// out[i] = x[i] + y[i] for i < n. A loop over the grid, so that any grid will do; read-only loads.

extern "C" __global__ void vector_add(const float *__restrict__ x, const float *__restrict__ y, float *__restrict__ out, int n)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        out[i] = x[i] + y[i];
    }
}
