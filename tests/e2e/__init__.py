"""The whole product on a real Kubernetes: the chart by Helm, injected pods by the kubelet, the SDKs inside them."""
